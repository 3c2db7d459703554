"""What the tests share; no tests in here."""
