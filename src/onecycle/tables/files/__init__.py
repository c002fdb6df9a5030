"""Tables in files, as pyarrow has them."""
