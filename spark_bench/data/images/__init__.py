"""Images as files: found below folders and in archives, told apart by their contents, decoded."""
