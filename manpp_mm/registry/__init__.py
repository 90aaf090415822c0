"""What is registered where; each module needs its package."""
