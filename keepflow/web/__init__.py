"""People-facing Flask: pages, REST API, sign-in; a view that does not declare the verb it needs is closed."""
