"""Trains small networks with torch.nn's and with fastact.nn's activations and compares them."""

from cli import friendly_imports, launch

with friendly_imports():
    import circles
    import digits

if __name__ == "__main__":
    launch(__doc__ or "", digits.run, circles.run)
