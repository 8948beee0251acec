"""What people look at: tables and texts made from results and live views; nothing here changes a run."""
