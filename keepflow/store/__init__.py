"""Tables, migrations and one module of queries per noun; the only place that speaks SQL."""
