"""`keepflow run FLOW --local`: checkout → copy → plan → worker, on this machine and without a server."""
