"""whence: from where in the picture does the decision of an image classifier come?"""
