"""What `keepflow agent doctor` looks at: one file per subject; each look changes nothing and says what it found."""
