"""How ranks share the work of a run: mesh, Ulysses, ring, tensor parallel, encoders and VAE."""
