"""What all HTML pages of the workstation share: templates, style, figures."""
