"""What users are charged: an estimate at once, the exact cost within seconds from the gateway's log, and the budgets.

Core: knows ports and protocol only. All money is in US dollars, unrounded.
"""
