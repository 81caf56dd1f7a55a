"""What plugins share, and what reaches outside: each adapter fulfils a port of the core."""
