"""The papers' networks, composed from layers, losses and backbones."""
