"""Every MongoDB query of the product, one class per collection and role."""
