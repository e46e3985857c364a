from .caption import CaptionResult as CaptionResult
from .zero_shot import read_class_words as read_class_words
from .zero_shot import read_classes as read_classes
