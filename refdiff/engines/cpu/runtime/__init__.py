"""What the operations of the cpu engine run on: it knows no model, no training and no configuration."""
