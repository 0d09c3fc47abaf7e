"""Simulators and builders that several suites use."""
