"""What the documents and the layout are. Pure: bytes in, typed frozen objects or an error out."""
