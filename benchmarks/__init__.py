"""What the product can do on this machine, next to the raw limit measured in the same rounds."""
