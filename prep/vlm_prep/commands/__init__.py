"""The commands of ``vlm-prep``, one module each: ``add`` says its arguments, the rest what it does and prints."""
