"""Random graphs of all op families and dtypes; their structure is drawn apart from their sizes and values.

The dims of a structure are names, so that it is met at many sizes, as one plan whose kernels are compiled once.
With each array goes an upper bound of how far two right evaluations of it may be apart, by which results are compared.
"""

from .graph import Graph, Output

__all__ = ["Graph", "Output"]
