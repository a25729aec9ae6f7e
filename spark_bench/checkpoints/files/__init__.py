"""What a file holds, read without running any of it: the container, its pickles, and what is none of ours."""
