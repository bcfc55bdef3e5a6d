"""The search trials: what is asked, what earlier searches teach, how runs with several seeds become one trial."""
