"""What to do with a trained model: each file is one use, short, and runs on a CPU in well under two minutes."""
