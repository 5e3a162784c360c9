"""People-facing Flask: pages, REST API, sign-in; every view declares the verb it needs, and what declares none is closed."""
