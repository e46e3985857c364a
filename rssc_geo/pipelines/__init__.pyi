from .caption import CaptionResult as CaptionResult
from .cell_choice import cells_at as cells_at
from .cell_choice import options_of_map as options_of_map
from .zero_shot import read_class_words as read_class_words
from .zero_shot import read_classes as read_classes
