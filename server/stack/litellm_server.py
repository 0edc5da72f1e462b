"""Serves LiteLLM: runs uvicorn with the arguments of the command line.

Run with LiteLLM's interpreter and settings."""

import gc

if __name__ == "__main__":  # not in further workers, which import this file and do not call what enables it again
    gc.disable()  # until all is imported: there is no garbage yet, and looking for it takes a fifth of the time

import sys
from importlib import import_module

import uvicorn

if __name__ == "__main__":
    import_module(sys.argv[1].partition(":")[0])
    gc.freeze()  # what is imported stays: collections need not look at it
    gc.enable()
    uvicorn.main()
