"""What is known of models: dated facts, the rules that requests are judged by, and prices."""
