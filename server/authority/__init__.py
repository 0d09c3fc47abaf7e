"""A fleet's certificate authorities, and the enrolment of its devices."""
