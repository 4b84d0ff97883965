"""Safetensors files compared tensor by tensor."""
