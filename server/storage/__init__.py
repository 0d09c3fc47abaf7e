"""What the server keeps: tables, their migrations, and one module per aggregate."""
