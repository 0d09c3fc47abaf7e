"""Mechanisms, accounting and budgets of differential privacy."""
