"""What a payment costs, beside a bare workflow of the same shape in the same run."""
