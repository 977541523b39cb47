"""What a fit is made of: settings checked, tables and stores read, samples matched, the model described."""
