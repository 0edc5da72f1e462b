"""What users are charged: estimated at once, exact within seconds from the gateway's log, within their budgets.

Core: knows ports and protocol only. All money is in US dollars, unrounded.
"""
