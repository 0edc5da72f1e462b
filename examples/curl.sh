#!/usr/bin/env bash
# A conversation by curl: register, stream a reply, repeat the message, read the history.
#     CHAT_URL=http://127.0.0.1:8080 examples/curl.sh [message]
set -euo pipefail
API="${CHAT_URL:-http://127.0.0.1:8080}/api/v1"
EMAIL="${CHAT_EMAIL:-$RANDOM$RANDOM@example.com}"
MESSAGE="${1:-Hello! What do you know about me?}"
json() { python3 -c 'import json, sys; print(json.dumps(dict(zip(sys.argv[1::2], sys.argv[2::2]))))' "$@"; }
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

# An account, and its access token. An API key (POST user/api-keys) is used in the same way.
TOKEN=$(curl -sSf "$API/auth/register" -H 'Content-Type: application/json' \
  -d "$(json email "$EMAIL" password "${CHAT_PASSWORD:-Passw0rd-$RANDOM$RANDOM}" name Ada)" | field access_token)
AUTH=(-H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json')

# The reply as an event stream, to the end of its turn. The key makes it safe to repeat: the same key is the same turn.
KEY="curl-$RANDOM$RANDOM"
curl -sSfN "$API/chat/message" "${AUTH[@]}" -H "Idempotency-Key: $KEY" -d "$(json content "$MESSAGE")"

# The same message once more, as JSON: the ended turn, and no second charge.
curl -sSf "$API/chat/message" "${AUTH[@]}" -H "Idempotency-Key: $KEY" -H 'Accept: application/json' \
  -d "$(json content "$MESSAGE")" | field cost

curl -sSf "$API/chat/history?limit=10" "${AUTH[@]}"
