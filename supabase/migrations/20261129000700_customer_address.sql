-- The e-mail address that the user's customer at LiteLLM was given; where it differs from the profile's, the customer is
-- brought up to date.
alter table public.user_profiles add column customer_email text;
update public.user_profiles set customer_email = email where customer_ready;

create index user_profiles_customer_address on public.user_profiles (updated_at)
  where customer_ready and email is distinct from customer_email;
