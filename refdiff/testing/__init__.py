"""What anybody can test their own code with: complex-step checks of derivatives, and the claims with their strategies."""
