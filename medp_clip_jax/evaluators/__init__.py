"""One file per question about a trained model; `encode.py` embeds a split once for all of them."""
