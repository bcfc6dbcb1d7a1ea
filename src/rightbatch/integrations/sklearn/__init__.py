"""Estimators with the manners of scikit-learn whose batch follows a policy."""
