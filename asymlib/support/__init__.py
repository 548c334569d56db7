"""What every room uses: refusals in one clear sentence, files read and written whole. It knows nothing else of asymlib."""
