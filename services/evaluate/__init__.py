"""How good a file of scores is: measures a period and in total, and pictures of them."""
