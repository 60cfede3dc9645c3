"""What a request will take, reckoned before anything large is downloaded."""
