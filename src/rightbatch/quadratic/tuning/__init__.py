"""The search over an optimizer's settings: where it stands and how it moves."""
