"""Native batch clients and pure translations behind one port."""
