"""Write models in the forms of other programs, and read networks of other libraries."""
