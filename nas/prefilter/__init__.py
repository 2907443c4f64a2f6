"""What is known of a space before anything is trained or searched: the certificate on bounds."""
