"""``fastfid report``: one HTML file that shows what a distance of two sets of images is made of."""
