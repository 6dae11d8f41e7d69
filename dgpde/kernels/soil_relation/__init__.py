"""Water content and conductivity of a soil at a pressure head; see README.md of this folder."""
