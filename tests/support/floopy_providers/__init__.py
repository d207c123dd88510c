"""What tests of provider clients share: an account, its input, and servers odder than any simulator."""
