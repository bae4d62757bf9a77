"""The tests. `module_under_test` says of what."""
