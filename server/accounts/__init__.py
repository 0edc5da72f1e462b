"""What is done with a user's data as a whole: deletion of the account, deletion of the history, and export.

Core: knows the ports alone. The same services are behind the API, the commands and the operators' endpoints."""
